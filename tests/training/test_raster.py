"""The rasteriser: meshes, projection, occlusion, ground, visibility, LiDAR, determinism."""

import hashlib
import itertools
import multiprocessing

import numpy as np
import pytest

from streampetr_core.errors import StreampetrError
from streampetr_core.geometry import invert_transform, make_transform, transform_points
from training.synth.raster import (
    FAMILIES,
    STRUCTURE_KINDS,
    TYPICAL_SIZES,
    VARIANTS,
    WEATHERS,
    GroundMap,
    Instance,
    Light,
    Mesh,
    object_mesh,
    render,
    scan,
    structure_mesh,
    visibility,
)
from training.synth.raster.mesh import boxes

WIDTH, HEIGHT = 352, 200
K = np.array([[280.0, 0, 170.5], [0, 280.0, 98.25], [0, 0, 1]])
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
RED = (200, 30, 30)
NO_NOISE = Light(noise=0.0, vignette=0.0)


def pose(x=0.0, y=0.0, yaw=0.0, z=0.0):
    cos, sin = np.cos(yaw), np.sin(yaw)
    return make_transform([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], (x, y, z))


def camera(x=0.0, y=0.0, z=1.5, yaw=0.0):
    return pose(x, y, yaw, z) @ make_transform(OPTICAL, np.zeros(3))


def plain_ground(value=100):
    return GroundMap(np.full((32, 32, 3), value, np.uint8), 1.0, (-16.0, -16.0))


def cube(size=(2.0, 2.0, 2.0), colour=RED):
    half = np.array(size) / 2
    return boxes((-half[0], -half[1], 0), (half[0], half[1], size[2]), colour)


def pixels_of(points_world, world_T_cam):
    points = transform_points(invert_transform(world_T_cam), points_world) @ K.T
    return points[..., :2] / points[..., 2:]


@pytest.mark.parametrize("kind", VARIANTS)
def test_bounds_are_exactly_the_size(kind):
    size = np.array(TYPICAL_SIZES[kind]) * (1.05, 0.93, 1.02)
    for variant, family, rider in itertools.product(range(VARIANTS[kind]), FAMILIES, (False, True)):
        stride = [
            object_mesh(kind, variant, size, RED, 5, phase, family=family, with_rider=rider) for phase in (0.27, 0.77)
        ]
        low = np.min([mesh.bounds[0] for mesh in stride], axis=0)
        high = np.max([mesh.bounds[1] for mesh in stride], axis=0)
        # A walker fills his length over one pair of steps, between the poses looked at here.
        assert np.allclose(high - low, size, atol=(0.05, 1e-5, 1e-5) if kind == "pedestrian" else 1e-5)
        assert np.allclose(low[2], 0, atol=1e-6)
        assert np.all(np.abs([mesh.vertices[:, :2] for mesh in stride][0]) <= size[:2] / 2 + 1e-5)
        assert 60 <= len(stride[0].triangles) <= 900
        assert np.isfinite(stride[0].vertices).all()


@pytest.mark.parametrize("kind", STRUCTURE_KINDS)
def test_scenery_stands_in_its_size(kind):
    for seed, family in itertools.product(range(6), FAMILIES):
        low, high = structure_mesh(kind, seed, (8.0, 3.0, 6.0), family=family).bounds
        assert np.allclose(high, (4, 1.5, 6), atol=1e-5) and np.allclose(low, (-4, -1.5, 0), atol=1e-5)


@pytest.mark.parametrize("kind", VARIANTS)
def test_validation_has_other_meshes_than_training(kind):
    def looks(family):
        meshes = [object_mesh(kind, v, TYPICAL_SIZES[kind], RED, s, family=family) for v in range(8) for s in range(4)]
        return {hashlib.sha1(mesh.vertices.tobytes() + mesh.colours.tobytes()).hexdigest() for mesh in meshes}

    assert looks("train").isdisjoint(looks("val"))


def test_a_walker_moves_and_a_stander_does_not_stretch():
    stander = object_mesh("pedestrian", 0, TYPICAL_SIZES["pedestrian"], RED, 1)
    left, right = (object_mesh("pedestrian", 0, TYPICAL_SIZES["pedestrian"], RED, 1, phase) for phase in (0.25, 0.75))
    assert np.ptp(stander.vertices[:, 0]) < 0.7 * np.ptp(left.vertices[:, 0])
    assert not np.allclose(left.vertices, right.vertices, atol=0.1)


def test_unknown_names_are_told():
    with pytest.raises(StreampetrError, match="tank"):
        object_mesh("tank", 0, (1, 1, 1), RED, 0)
    with pytest.raises(StreampetrError, match="castle"):
        structure_mesh("castle", 0, (1, 1, 1))
    with pytest.raises(StreampetrError, match="test"):
        object_mesh("car", 0, (4, 2, 2), RED, 0, family="test")


def test_closed_meshes_face_outwards():
    """Seen from outside, the front of every class hides its inside: no hole lets the ground through."""
    for kind in ("car", "bus", "trailer"):
        mesh = object_mesh(kind, 0, TYPICAL_SIZES[kind], RED, 0)
        picture = render([Instance(mesh, pose(14, 0, 0.5), 1)], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
        left, top, right, bottom = np.round(picture.visibility.boxes[0]).astype(int)
        middle = picture.ids[top + (bottom - top) // 3 : bottom - (bottom - top) // 3, left + 8 : right - 8]
        assert (middle == 1).mean() > 0.97


def test_front_face_of_a_box_is_where_the_pinhole_says():
    world_T_cam = camera()
    picture = render([Instance(cube(), pose(9.0), 7)], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, world_T_cam)
    face = pixels_of(np.array([(8.0, 1.0, 2.0), (8.0, -1.0, 0.0)]), world_T_cam)
    (left, top), (right, bottom) = face
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    assert np.array_equal(picture.ids[inside], np.full(inside.sum(), 7))
    assert np.allclose(picture.depth[inside], 8.0, atol=1e-4)
    # Above the face its top is hidden (the camera is lower than it); beside it the sides are.
    assert np.array_equal(picture.ids == 7, inside)
    assert np.array_equal(picture.visibility.idents, [7])
    assert picture.visibility.visible[0] == picture.visibility.whole[0] == inside.sum()


def test_depth_of_a_turned_box_is_that_of_its_planes():
    world_T_cam, world_T_body = camera(0, 0.5, 1.2, 0.1), pose(8.0, 0.4, 0.7)
    picture = render([Instance(cube(), world_T_body, 1)], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, world_T_cam)
    rows, columns = np.nonzero(picture.ids == 1)
    rays = np.stack([columns, rows, np.ones(len(rows))], axis=1) @ np.linalg.inv(K).T
    points = transform_points(invert_transform(world_T_body) @ world_T_cam, rays * picture.depth[rows, columns, None])
    assert len(rows) > 1000
    assert np.allclose(np.abs(points - (0, 0, 1)).max(axis=1), 1.0, atol=0.001)


def test_checker_on_the_ground_is_in_perspective():
    squares = np.indices((40, 40)).sum(axis=0) % 2
    tile = np.repeat(np.repeat(squares, 20, axis=0), 20, axis=1)  # squares of 1 m at 5 cm per pixel
    ground = GroundMap(np.repeat((40 + 160 * tile)[:, :, None], 3, axis=2).astype(np.uint8), 0.05, (-4.975, -19.975))
    world_T_cam = camera(0, 0, 1.5, 0.05)
    picture = render([], ground, NO_NOISE, WIDTH, HEIGHT, K, world_T_cam)
    x, y = np.meshgrid(np.arange(4, 12) + 0.5, np.arange(-3, 3) + 0.5)
    centres = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    columns, rows = np.round(pixels_of(centres, world_T_cam)).astype(int).T
    shown = (rows < HEIGHT) & (columns >= 0) & (columns < WIDTH)
    assert shown.sum() > 30
    expected = (np.floor(x.ravel() + 5).astype(int) + np.floor(y.ravel() + 20).astype(int)) % 2
    bright = picture.image[rows, columns].mean(axis=1)[shown] > 100
    assert np.array_equal(bright, expected[shown].astype(bool))


def test_ground_and_sky_have_depth_and_no_identity():
    picture = render([], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
    assert not picture.ids.any()
    rows = np.arange(HEIGHT)
    with np.errstate(divide="ignore"):
        expected = np.where(rows > 98.25, 1.5 * 280 / (rows - 98.25), np.inf)
    assert np.allclose(picture.depth, expected[:, None], rtol=1e-5)


def test_near_things_hide_far_ones_whatever_their_order():
    near, far = Instance(cube(), pose(8.0), 1), Instance(cube((2, 8, 2)), pose(14.0), 2)
    pictures = [
        render(items, plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera()) for items in ([near, far], [far, near])
    ]
    assert pictures[0].image.tobytes() == pictures[1].image.tobytes()
    seen = pictures[0].visibility
    assert seen.fractions[0] == 1.0 and 0.5 < seen.fractions[1] < 0.8
    alone = render([far], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
    assert seen.whole[1] == alone.visibility.visible[0]
    assert seen.visible[1] == alone.visibility.visible[0] - (alone.ids[pictures[0].ids == 1] == 2).sum()


def test_scenery_hides_but_is_not_counted():
    wall = Instance(structure_mesh("wall", 0, (0.5, 30.0, 6.0)), pose(8.0), 0)
    picture = render([wall, Instance(cube(), pose(14.0), 3)], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
    assert picture.visibility.idents.tolist() == [3] and picture.visibility.visible[0] == 0
    assert np.isnan(picture.visibility.boxes).all()


def test_visibility_alone_agrees_with_the_picture():
    rng = np.random.default_rng(3)
    items = [
        Instance(cube(), pose(rng.uniform(3, 25), rng.uniform(-9, 9), rng.uniform(0, 6)), i + 1) for i in range(30)
    ]
    items.append(Instance(structure_mesh("tree", 1, (4.0, 4.0, 6.0)), pose(12.0, 1.0), 0))
    picture = render(items, plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
    alone = visibility(items, WIDTH, HEIGHT, K, camera())
    for name in ("idents", "visible", "whole", "boxes"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(picture.visibility, name))
    for row, ident in enumerate(alone.idents):
        assert (picture.ids == ident).sum() == alone.visible[row]


def test_near_plane_cuts_what_surrounds_the_camera():
    street = Instance(cube((60.0, 2.0, 0.8)), pose(0.0, 2.5), 1)  # a long block beside and behind the camera
    picture = render([street], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
    rows, columns = np.nonzero(picture.ids == 1)
    rays = np.stack([columns, rows, np.ones(len(rows))], axis=1) @ np.linalg.inv(K).T
    points = transform_points(camera(), rays * picture.depth[rows, columns, None])
    assert len(rows) > 2000
    assert np.all(np.abs(points[:, 1] - 2.5) < 1.001) and np.all(points[:, 2] < 0.801)
    inside = render([Instance(cube((4, 4, 4)), pose(), 1)], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
    assert not inside.ids.any()  # faces are seen from outside only


def test_boxes_enclose_the_visible_pixels_of_500_objects():
    rng = np.random.default_rng(0)
    kinds, counted, enclosed = list(VARIANTS), 0, 0
    while counted < 500:
        items, sizes = [], []
        for ident in range(1, 25):
            kind = kinds[rng.integers(len(kinds))]
            size = tuple(np.array(TYPICAL_SIZES[kind]) * rng.uniform(0.9, 1.1, 3))
            mesh = object_mesh(kind, int(rng.integers(9)), size, RED, int(rng.integers(50)), rng.random())
            items.append(Instance(mesh, pose(rng.uniform(4, 40), rng.uniform(-18, 18), rng.uniform(-3, 3)), ident))
            sizes.append(size)
        picture = render(items, plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera())
        rows, columns = np.nonzero(picture.ids)
        idents = picture.ids[rows, columns]
        rays = np.stack([columns, rows, np.ones(len(rows))], axis=1) @ np.linalg.inv(K).T
        points = transform_points(camera(), rays * picture.depth[rows, columns, None])
        for ident in np.unique(idents):
            body = transform_points(invert_transform(items[ident - 1].world_T_body), points[idents == ident])
            size = np.array(sizes[ident - 1])
            offset = np.abs(body - (0, 0, size[2] / 2)) - size / 2
            enclosed += (offset.max(axis=1) < 0.01).mean() >= 0.99
            counted += 1
    assert enclosed == counted


def test_supersampling_keeps_geometry_and_calms_the_picture():
    items = [Instance(object_mesh("car", 0, TYPICAL_SIZES["car"], RED, 0), pose(10.0, 0, 0.4), 1)]
    one, two = (
        render(items, plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, camera(), supersample=times) for times in (1, 2)
    )
    assert two.image.shape == one.image.shape and two.depth.shape == one.depth.shape
    assert (one.ids != two.ids).mean() < 0.01
    assert two.visibility.visible[0] == pytest.approx(one.visibility.visible[0], rel=0.02)
    assert np.allclose(one.visibility.boxes, two.visibility.boxes, atol=1.0)
    assert np.abs(one.image.astype(int) - two.image).mean() < 2.0


def test_sun_and_contact_darken_the_ground():
    low_sun = Light(sun_direction=(0.0, 0.8, 0.6), noise=0.0, vignette=0.0)
    items = [Instance(cube(), pose(9.0), 1)]
    with_box, without = (render(things, plain_ground(), low_sun, WIDTH, HEIGHT, K, camera()) for things in (items, []))
    ratio = with_box.image.astype(float).sum(axis=2) / np.maximum(without.image.astype(float).sum(axis=2), 1)
    spots = {"shadow": (9.0, -2.0, 0), "sunny": (9.0, 3.5, 0), "contact": (9.0, 1.05, 0)}
    columns, rows = np.round(pixels_of(np.array(list(spots.values())), camera())).astype(int).T
    shadow, sunny, contact = ratio[rows, columns]
    assert shadow < 0.75 and contact < 0.9 and sunny == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("weather", WEATHERS)
def test_weather_gives_a_plausible_and_different_picture(weather):
    lights = [Light.sample(np.random.default_rng(seed), weather) for seed in (1, 2)]
    assert lights[0] != lights[1] and lights[0] == Light.sample(np.random.default_rng(1), weather)
    image = render([], plain_ground(), lights[0], WIDTH, HEIGHT, K, camera()).image
    sky, ground = image[10].mean(), image[-5].mean()
    assert 5 < ground < sky < 254


def test_the_sky_has_no_seam():
    behind = camera(yaw=np.pi)  # the azimuth jumps from -pi to pi in the middle of this picture
    image = render([], plain_ground(), NO_NOISE, WIDTH, HEIGHT, K, behind).image.astype(float)
    steps = np.abs(np.diff(image[:90], axis=1)).mean(axis=(0, 2))
    assert steps[166:176].max() < 1.5 * steps.max(initial=0.5, where=np.abs(np.arange(len(steps)) - 170) > 6)


def _scene():
    rng = np.random.default_rng(8)
    items = []
    for ident, kind in enumerate(VARIANTS, start=1):
        mesh = object_mesh(kind, ident, TYPICAL_SIZES[kind], RED, ident, 0.3)
        items.append(Instance(mesh, pose(rng.uniform(5, 30), rng.uniform(-8, 8), rng.uniform(-3, 3)), ident))
    items.append(Instance(structure_mesh("building", 3, (12.0, 10.0, 9.0)), pose(25.0, 14.0), 0))
    items.append(Instance(structure_mesh("tree", 3, (4.0, 4.0, 6.0)), pose(15.0, -9.0), 0))
    return items


def _digest(_=None):
    light = Light.sample(np.random.default_rng(4), "rain")
    picture = render(_scene(), plain_ground(), light, WIDTH, HEIGHT, K, camera())
    points, idents = scan(_scene(), pose(z=1.84))
    parts = (picture.image, picture.depth, picture.ids, picture.visibility.boxes, points, idents)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_equal_bytes_twice_and_in_another_process():
    here = _digest()
    assert _digest() == here
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_digest, [None]) == [here]


def test_lidar_hits_lie_on_what_they_name():
    items = _scene()
    world_T_lidar = pose(1.0, 0.5, 0.8, 1.84)
    points, idents = scan(items, world_T_lidar)
    world = transform_points(world_T_lidar, points)
    for item in items:
        if item.ident and (idents == item.ident).any():
            body = transform_points(invert_transform(item.world_T_body), world[idents == item.ident])
            low, high = item.mesh.bounds
            assert np.all(body > low - 1e-3) and np.all(body < high + 1e-3)
    assert set(idents) >= {0, 1, 2, 3}
    assert np.all(np.linalg.norm(points, axis=1) < 80)
    assert (np.abs(world[idents == 0, 2]) < 1e-3).sum() > 5000


def test_lidar_counts_what_a_plain_ray_caster_counts():
    items = [
        Instance(cube((3.0, 2.0, 1.6)), pose(9.0, 2.0, 0.6), 1),
        Instance(cube((1.0, 6.0, 3.0)), pose(16.0, 3.0), 2),
    ]
    points, idents = scan(items, pose(z=1.84), with_ground=False)
    azimuths = (np.arange(1080) + 0.5) * (2 * np.pi / 1080) - np.pi
    slopes = np.tan(np.linspace(np.deg2rad(-30.67), np.deg2rad(10.67), 32))
    rays = np.stack(np.broadcast_arrays(np.cos(azimuths), np.sin(azimuths), slopes[:, None]), axis=-1).reshape(-1, 3)
    best, owner = np.full(len(rays), np.inf), np.zeros(len(rays), int)
    for item in items:
        body_T_lidar = invert_transform(item.world_T_body) @ pose(z=1.84)
        eye, directions = body_T_lidar[:3, 3], rays @ body_T_lidar[:3, :3].T
        low, high = item.mesh.bounds
        with np.errstate(divide="ignore"):
            one, two = (low - eye) / directions, (high - eye) / directions
        entry, leave = np.minimum(one, two).max(axis=1), np.maximum(one, two).min(axis=1)
        closer = (entry < leave) & (entry > 0) & (entry < best)
        best[closer], owner[closer] = entry[closer], item.ident
    assert (owner == 2).sum() > 50
    for ident in (1, 2):
        assert abs((idents == ident).sum() - (owner == ident).sum()) <= 2
    assert np.isclose(
        np.linalg.norm(points, axis=1).sum(), (best * np.linalg.norm(rays, axis=1))[owner > 0].sum(), rtol=0.01
    )


def test_lidar_gives_nothing_for_what_is_hidden():
    wall = Instance(structure_mesh("wall", 0, (0.4, 12.0, 5.0)), pose(6.0), 0)
    _, idents = scan([wall, Instance(cube(), pose(12.0), 5)], pose(z=1.84))
    assert not (idents == 5).any()


def test_mesh_normals_are_units():
    mesh: Mesh = object_mesh("truck", 2, TYPICAL_SIZES["truck"], RED, 2)
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-5)
    assert np.allclose(np.linalg.norm(mesh.shading_normals, axis=1), 1.0, atol=1e-5)
