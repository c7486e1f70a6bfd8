# find_pip_packages(<package>...): find_package for ROS packages that pip installed into the interpreter's environment.

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(COMMAND "${Python3_EXECUTABLE}" -c "import sys; print(sys.prefix, end='')" OUTPUT_VARIABLE PIP_PREFIX)
list(PREPEND CMAKE_PREFIX_PATH "${PIP_PREFIX}")
set(ENV{AMENT_PREFIX_PATH} "${PIP_PREFIX}:$ENV{AMENT_PREFIX_PATH}")

macro(find_pip_packages)
  foreach(package ${ARGN})
    find_package(${package} REQUIRED)
  endforeach()
  drop_absent_includes()
endmacro()

# The wheels' exported targets also name include folders of the machine that built them, and CMake refuses to go on.
function(drop_absent_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target ${targets})
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(folders)
      list(FILTER folders EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${folders}")
    endif()
  endforeach()
endfunction()
