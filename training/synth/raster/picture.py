"""From a list of things, the ground and the light to the picture of one camera."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from streampetr_core.geometry import Array, invert_transform
from training.synth.raster.ground import GroundMap, noise_tile
from training.synth.raster.kernels import (
    NEAR,
    OCCLUSION_MASK,
    SUN_SHADOW,
    count_pixels,
    draw_contacts,
    draw_mesh,
    draw_shadow,
)
from training.synth.raster.light import NOISE_STARTS, Light, haze_table, sensor_noise, sky_table
from training.synth.raster.mesh import Mesh
from training.synth.raster.shading import SKYLINE_SIZE, colour_pixels, shade_triangles

_SMALLEST = 0.4  # pixels; what is smaller is left out
_SHADOW_REACH = 90.0  # metres; farther away the haze hides shadows
_CONTACT_REACH = 60.0
_CLOUD_TILES, _SMOOTHNESS = 8, 1.6


@dataclass(frozen=True)
class Instance:
    """A mesh at its pose `world_T_body` (4, 4); `ident` is 0 for scenery and above 0 for an object."""

    mesh: Mesh
    world_T_body: Array
    ident: int = 0


@dataclass(frozen=True)
class Visibility:
    """What one camera sees of each object that reaches into its picture; rows are ordered by identity.

    `idents` (D,), `visible` (D,) pixels that show it, `whole` (D,) pixels it would cover if nothing stood before it,
    `boxes` (D, 4) left, top, right, bottom of the visible pixels (rims, so a lone pixel (3, 5) gives
    2.5, 4.5, 3.5, 5.5; NaN when none is visible).
    """

    idents: NDArray[np.int32]
    visible: Array
    whole: Array
    boxes: Array

    @property
    def fractions(self) -> Array:
        """Visible share (D,) of what could be seen."""
        return self.visible / np.maximum(self.whole, 1e-9)


@dataclass(frozen=True)
class Picture:
    """What a camera sees: `image` (H, W, 3) uint8 RGB, who is in it, and what each pixel shows.

    The buffers are those of the picture as it was drawn, `supersample` times as large; None for a picture that was
    made in a workspace, whose buffers serve the next one.
    """

    image: NDArray[np.uint8]
    visibility: Visibility
    drawn_depth: NDArray[np.float32] | None
    drawn_ids: NDArray[np.int32] | None
    supersample: float = 1

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) along z of the camera in metres, inf for sky."""
        return self._thinned(self.drawn_depth)

    @cached_property
    def ids(self) -> NDArray[np.int32]:
        """(H, W): identities; 0 for sky, ground and scenery."""
        return self._thinned(self.drawn_ids)

    def _thinned(self, values: NDArray | None) -> NDArray:
        if values is None:
            raise ValueError("a picture made in a workspace has no depth and ids; render it without one")
        rows, columns = (
            np.ceil((np.arange(count) + 0.5) * self.supersample - 1).astype(int) for count in self.image.shape[:2]
        )
        return values[rows[:, None], columns]


class Workspace:
    """Buffers for one picture after another: to ask for new memory each time takes longer than to clear the old.

    It serves one thread.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray] = {}

    def filled(self, name: str, shape: tuple[int, int], dtype: DTypeLike, value: float) -> NDArray:
        """Return the buffer of that name, every element `value`."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape, dtype)
        array.fill(value)
        return array


@dataclass(frozen=True)
class _Camera:
    """A pinhole camera whose pixel centres have integer coordinates; `pinhole` is (fx, fy, cx, cy)."""

    width: int
    height: int
    pinhole: Array
    world_T_cam: Array
    cam_T_world: Array

    @property
    def eye(self) -> Array:
        return self.world_T_cam[:3, 3]

    @property
    def rays(self) -> Array:
        """(3, 3): maps (column, row, 1) to the direction in world whose depth is 1."""
        fx, fy, cx, cy = self.pinhole
        return self.world_T_cam[:3, :3] @ np.array([[1 / fx, 0, -cx / fx], [0, 1 / fy, -cy / fy], [0, 0, 1]])

    def reached_by(self, centres: Array, radii: Array) -> NDArray[np.bool_]:
        """Return which spheres (N, 3) in cam, with radii (N,), may be in the picture and are not too small."""
        fx, fy, cx, cy = self.pinhole
        x, y, z = centres.T
        inside = (z + radii > NEAR) & (radii * max(fx, fy) > _SMALLEST * z)
        planes = (
            (fx, x, cx + 0.5),
            (-fx, x, self.width - 0.5 - cx),
            (fy, y, cy + 0.5),
            (-fy, y, self.height - 0.5 - cy),
        )
        for slope, offset, rim in planes:
            inside &= slope * offset + rim * z > -radii * np.hypot(slope, rim)
        return inside


@dataclass(frozen=True)
class _Placed:
    """Instances with all their matrices: `world_T_body` and `cam_T_body` (N, 4, 4)."""

    instances: Sequence[Instance]
    world_T_body: Array
    cam_T_body: Array
    centres: Array  # (N, 3) in cam, of the bounding spheres
    radii: Array

    @staticmethod
    def of(instances: Sequence[Instance], camera: _Camera) -> "_Placed":
        world_T_body = np.array([item.world_T_body for item in instances], dtype=np.float64).reshape(-1, 4, 4)
        cam_T_body = camera.cam_T_world @ world_T_body
        centres = np.array([item.mesh.centre for item in instances]).reshape(-1, 3)
        centres = np.einsum("nij,nj->ni", cam_T_body[:, :3, :3], centres) + cam_T_body[:, :3, 3]
        radii = np.array([item.mesh.radius for item in instances])
        return _Placed(instances, world_T_body, cam_T_body, centres, radii)

    def in_body(self, vector: ArrayLike) -> Array:
        """Return directions (N, 3) in body of one in world."""
        return np.einsum("nji,j->ni", self.world_T_body[:, :3, :3], np.asarray(vector, dtype=np.float64))

    def eyes(self, eye: Array) -> Array:
        """Return (N, 3): the camera's position in body."""
        return np.einsum("nji,nj->ni", self.world_T_body[:, :3, :3], eye - self.world_T_body[:, :3, 3])


@dataclass(frozen=True)
class _Drawing:
    """The buffers of one picture, and the slots of the instances drawn: slot s is instance `order[s - 1]`."""

    inverse_depth: NDArray[np.float32]
    surface: NDArray[np.int32]
    covered: NDArray[np.int64]  # by slot
    order: NDArray[np.int64]
    firsts: NDArray[np.int64]  # by slot, the number of its first triangle


def render(
    instances: Sequence[Instance],
    ground: GroundMap,
    light: Light,
    width: int,
    height: int,
    K: ArrayLike,
    world_T_cam: ArrayLike,
    supersample: float = 1,
    workspace: Workspace | None = None,
) -> Picture:
    """Return what a camera with intrinsics `K` (3, 3) at `world_T_cam` (4, 4, optical axes) sees.

    With `supersample` 2 the picture is drawn at twice the size and halved, which is calmer and sharper; depth, ids and
    visibility then come from the large picture, of whose pixels every other one is kept. It may be any factor that
    gives the large picture whole pixels; ValueError for another one. With a `workspace` the picture keeps no depth and
    ids.
    """
    large = width * supersample, height * supersample
    if any(value % 1 for value in large):
        raise ValueError(f"{width}x{height} times {supersample} is no whole number of pixels")
    camera = _camera(int(large[0]), int(large[1]), K, world_T_cam, supersample)
    placed = _Placed.of(instances, camera)
    buffers = workspace or Workspace()
    drawing = _draw(placed, camera, buffers)
    shade = buffers.filled("shade", drawing.surface.shape, np.uint8, 0)
    _cast_shadows(placed, camera, light, drawing.surface, shade)
    _darken_contacts(placed, camera, drawing.surface, shade)
    image, counts, boxes = _colour(placed, drawing, camera, ground, light, shade)
    visibility = _gather(placed, drawing, counts, boxes, supersample)
    if supersample > 1:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if workspace is not None:
        return Picture(image, visibility, None, None, supersample)
    return Picture(image, visibility, drawing.inverse_depth, drawing.surface, supersample)


def visibility(
    instances: Sequence[Instance], width: int, height: int, K: ArrayLike, world_T_cam: ArrayLike
) -> Visibility:
    """Return what `render` says about visibility, without painting; the ground hides nothing."""
    camera = _camera(width, height, K, world_T_cam, 1)
    placed = _Placed.of(instances, camera)
    drawing = _draw(placed, camera, Workspace())
    counts, boxes = _empty_counts(len(drawing.firsts))
    count_pixels(drawing.surface, _slots(placed, drawing), counts, boxes)
    return _gather(placed, drawing, counts, boxes, 1)


def _camera(width: int, height: int, K: ArrayLike, world_T_cam: ArrayLike, supersample: float) -> _Camera:
    K, world_T_cam = np.asarray(K, dtype=np.float64), np.asarray(world_T_cam, dtype=np.float64)
    shift = (supersample - 1) / 2  # of the centre of the first small pixel from that of the first large one
    pinhole = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]) * supersample + (0, 0, shift, shift)
    return _Camera(width, height, pinhole, world_T_cam, invert_transform(world_T_cam))


def _draw(placed: _Placed, camera: _Camera, buffers: Workspace) -> _Drawing:
    shape = (camera.height, camera.width)
    inverse_depth = buffers.filled("inverse_depth", shape, np.float32, 0.0)
    surface, stamp = buffers.filled("surface", shape, np.int32, -1), buffers.filled("stamp", shape, np.uint16, 0)
    seen = (
        np.flatnonzero(camera.reached_by(placed.centres, placed.radii)) if len(placed.instances) else np.empty(0, int)
    )
    # The nearest first: what they hide is not painted.
    order = seen[np.argsort(placed.centres[seen, 2], kind="stable")]
    firsts = np.cumsum([0, 0] + [len(placed.instances[index].mesh.triangles) for index in order])[: len(order) + 1]
    eyes = placed.eyes(camera.eye)
    covered = np.zeros(len(order) + 1, np.int64)
    for slot, index in enumerate(order, start=1):
        item = placed.instances[index]
        covered[slot] = draw_mesh(
            item.mesh.vertices,
            item.mesh.triangles,
            item.mesh.normals,
            placed.cam_T_body[index],
            eyes[index],
            camera.pinhole,
            firsts[slot],
            slot if item.ident > 0 else 0,
            inverse_depth,
            surface,
            stamp,
        )
    return _Drawing(inverse_depth, surface, covered, order, firsts)


def _cast_shadows(placed: _Placed, camera: _Camera, light: Light, surface: NDArray, shade: NDArray) -> None:
    sun = np.asarray(light.sun_direction, dtype=np.float64)
    if sun[2] <= 0.05 or not len(placed.instances) or camera.eye[2] <= NEAR:
        return
    flatten = np.eye(4)
    flatten[:3, 2] -= sun / sun[2]
    heights = np.array([item.mesh.height for item in placed.instances])
    slant = np.hypot(sun[0], sun[1]) / sun[2]
    middles = placed.centres - 0.5 * heights[:, None] * slant * _unit(camera.cam_T_world[:3, :3] @ (sun * (1, 1, 0)))
    reached = camera.reached_by(middles, placed.radii + 0.5 * heights * slant)
    reached &= placed.centres[:, 2] - placed.radii < _SHADOW_REACH
    cam_T_body = camera.cam_T_world @ flatten @ placed.world_T_body
    suns = placed.in_body(sun)
    for index in np.flatnonzero(reached):
        mesh = placed.instances[index].mesh
        draw_shadow(
            mesh.vertices, mesh.triangles, mesh.normals, cam_T_body[index], suns[index], camera.pinhole, surface, shade
        )


def _darken_contacts(placed: _Placed, camera: _Camera, surface: NDArray, shade: NDArray) -> None:
    if not len(placed.instances) or camera.eye[2] <= NEAR:
        return
    reached = camera.reached_by(placed.centres, placed.radii + 1.0) & (placed.centres[:, 2] < _CONTACT_REACH)
    chosen = np.flatnonzero(reached)
    if len(chosen):
        footprints = np.array([placed.instances[index].mesh.footprint for index in chosen])
        draw_contacts(
            footprints,
            placed.world_T_body[chosen],
            placed.cam_T_body[chosen],
            camera.rays,
            camera.eye,
            camera.pinhole,
            surface,
            shade,
        )


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _colour(
    placed: _Placed, drawing: _Drawing, camera: _Camera, ground: GroundMap, light: Light, shade: NDArray
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return the image, and by slot the visible pixels and their boxes; the buffers become depth and ids."""
    values = _light_values(light)
    meshes = [placed.instances[index].mesh for index in drawing.order]
    total = sum(len(mesh.triangles) for mesh in meshes)
    colours = np.empty((total, 3), np.float32)
    eyes, suns, ups = placed.eyes(camera.eye), placed.in_body(light.sun_direction), placed.in_body((0.0, 0.0, 1.0))
    for index, mesh, first in zip(drawing.order, meshes, drawing.firsts[1:], strict=True):
        shade_triangles(
            mesh.vertices,
            mesh.triangles,
            mesh.shading_normals,
            mesh.colours,
            mesh.materials,
            eyes[index],
            suns[index],
            ups[index],
            values,
            colours[first : first + len(mesh.triangles)],
        )
    slots = _slots(placed, drawing)
    identities = np.array([0] + [placed.instances[index].ident for index in drawing.order], dtype=np.int32)
    materials = np.concatenate([np.empty(0, np.uint8), *(mesh.materials for mesh in meshes)])
    packed, sizes = ground.mips
    origin = np.array([*ground.origin, ground.metres_per_pixel, camera.pinhole[0]])
    clouds = noise_tile(light.noise_seed % _CLOUD_TILES, _SMOOTHNESS)
    air = (
        sky_table(light.air) * np.float32(light.tint),
        clouds,
        _skyline(light.noise_seed % _CLOUD_TILES),
        haze_table(light.air.haze_density),
    )
    seed = zlib.crc32(camera.world_T_cam.tobytes()) ^ light.noise_seed
    first_noise = np.random.default_rng(seed).integers(0, NOISE_STARTS, camera.height)
    image = np.empty((camera.height, camera.width, 3), np.uint8)
    counts, boxes = _empty_counts(len(drawing.firsts))
    colour_pixels(
        drawing.inverse_depth,
        drawing.surface,
        shade,
        (colours, materials, slots, identities),
        camera.rays,
        camera.eye,
        (packed, sizes, origin, ground.grain, _lit_ground(light)),
        air,
        values,
        sensor_noise(light.noise, 3 * camera.width),
        first_noise,
        image,
        counts,
        boxes,
    )
    return image, counts, boxes


def _slots(placed: _Placed, drawing: _Drawing) -> NDArray[np.int32]:
    """Return the slot (T,) of each triangle drawn."""
    counts = [len(placed.instances[index].mesh.triangles) for index in drawing.order]
    return np.repeat(np.arange(1, len(counts) + 1, dtype=np.int32), counts)


def _light_values(light: Light) -> Array:
    """Return the array (7, 3) whose rows `shading` names; all colours have the tint of the camera."""
    bounce = 0.32 * (np.asarray(light.sun) * max(light.sun_direction[2], 0.0) + light.sky)
    colours = np.array([light.sun, light.sky, bounce, light.air.horizon, light.air.zenith, light.air.cloud])
    return np.concatenate([colours * light.tint, [[light.air.clouds, light.air.wetness, light.vignette]]])


@lru_cache(maxsize=16)
def _lit_ground(light: Light) -> NDArray[np.float32]:
    """Return the light (256, 3) on the ground by value of the shade buffer, for albedos 256 times too large."""
    values = np.arange(256)[:, None]
    open_sky = 1 - (values & OCCLUSION_MASK) / OCCLUSION_MASK
    sun = np.where(values & SUN_SHADOW, 0.0, max(light.sun_direction[2], 0.0)) * np.asarray(light.sun)
    lit = open_sky * (sun + np.asarray(light.sky)) * (1 - 0.3 * light.air.wetness)
    return (lit * np.asarray(light.tint) / 256).astype(np.float32)


@lru_cache(maxsize=8)
def _skyline(seed: int) -> NDArray[np.float32]:
    """Return the sine of the height (1024,) of distant hills and woods, by azimuth."""
    waves = noise_tile(seed, 1.2)
    long, short = waves[17].repeat(SKYLINE_SIZE // waves.shape[1]), np.tile(waves[90], SKYLINE_SIZE // waves.shape[1])
    return np.clip(0.018 + 0.02 * long + 0.006 * short, 0.004, 0.055).astype(np.float32)


def _empty_counts(slots: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts, boxes = np.zeros(slots, np.int64), np.empty((slots, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, -1
    return counts, boxes


def _gather(placed: _Placed, drawing: _Drawing, counts: NDArray, boxes: NDArray, supersample: float) -> Visibility:
    """Return counts and boxes of slots by identity, in pixels of the finished picture."""
    slot_idents = np.array([placed.instances[index].ident for index in drawing.order], dtype=np.int32)
    idents = np.unique(slot_idents[(drawing.covered[1:] > 0) & (slot_idents > 0)])
    of_slot = np.searchsorted(idents, slot_idents)
    kept = np.flatnonzero(np.isin(slot_idents, idents))
    visible, whole = np.zeros(len(idents)), np.zeros(len(idents))
    np.add.at(visible, of_slot[kept], counts[1:][kept])
    np.add.at(whole, of_slot[kept], drawing.covered[1:][kept])
    rims = np.full((len(idents), 4), np.nan)
    for slot in kept[counts[1:][kept] > 0]:
        low, high = boxes[slot + 1, :2] - 0.5, boxes[slot + 1, 2:] + 0.5
        old = rims[of_slot[slot]]
        rims[of_slot[slot]] = [*np.fmin(old[:2], low), *np.fmax(old[2:], high)]
    shift = (supersample - 1) / 2
    return Visibility(idents, visible / supersample**2, whole / supersample**2, (rims - shift) / supersample)
