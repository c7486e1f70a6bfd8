"""Deterministic inputs of the golden data (numpy only).

The camera rig is a *synthetic* nuScenes-like rig (rounded, nominal numbers), the ego
trajectory is a synthetic curve.  Everything is computed in float64 and cast to float32
at the very end, except `timestamp` which stays float64.  The exact matrices that were
fed to the official model are also stored in the npz files, so the functions below only
matter if you want to regenerate them; only `image()` / `raw_image()` must be used.
"""

import zlib

import numpy as np

CAMS = ["CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"]
#       yaw(deg)  position in the ego frame (m)   focal  cx     cy     pitch  roll (deg)
RIG = {
    "CAM_FRONT": (0.0, (1.70, 0.02, 1.51), 1266.4, 816.3, 491.5, 0.3, 0.2),
    "CAM_FRONT_RIGHT": (-56.0, (1.55, -0.49, 1.50), 1260.8, 808.0, 495.3, 0.6, -0.4),
    "CAM_FRONT_LEFT": (55.0, (1.52, 0.49, 1.51), 1272.6, 826.6, 479.8, -0.2, 0.1),
    "CAM_BACK": (180.0, (0.03, 0.00, 1.58), 809.2, 829.2, 481.8, 0.9, 0.5),
    "CAM_BACK_LEFT": (108.5, (1.04, 0.48, 1.59), 1256.7, 792.1, 492.8, 0.4, -0.3),
    "CAM_BACK_RIGHT": (-110.8, (1.01, -0.48, 1.56), 1259.5, 807.3, 501.2, -0.5, 0.6),
}
LIDAR2EGO_T = (0.94, 0.0, 1.84)
LIDAR2EGO_YPR = (-90.2, 0.3, -0.2)  # yaw, pitch, roll in degrees


def rot_zyx(yaw, pitch, roll):
    """Rz(yaw) @ Ry(pitch) @ Rx(roll), radians."""
    cy, sy, cp, sp, cr, sr = (np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll))
    rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]])
    ry = np.array([[cp, 0, sp], [0, 1.0, 0], [-sp, 0, cp]])
    rx = np.array([[1.0, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return rz @ ry @ rx


def mat(r, t):
    m = np.eye(4)
    m[:3, :3] = r
    m[:3, 3] = t
    return m


def lidar2ego():
    return mat(rot_zyx(*np.deg2rad(LIDAR2EGO_YPR)), LIDAR2EGO_T)


def cam2ego(name):
    yaw, pos, _, _, _, pitch, roll = RIG[name]
    # camera axes: x right, y down, z forward; ego axes: x forward, y left, z up
    base = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    return mat(rot_zyx(*np.deg2rad((yaw, pitch, roll))) @ base, pos)


def lidar2cam(name):
    return np.linalg.inv(cam2ego(name)) @ lidar2ego()


def raw_intrinsic(name):
    """4x4 intrinsic matrix for the 1600x900 original image."""
    _, _, f, cx, cy, _, _ = RIG[name]
    k = np.eye(4)
    k[0, 0] = k[1, 1] = f
    k[0, 2], k[1, 2] = cx, cy
    return k


def test_ida(h, w, src_h=900, src_w=1600):
    """3x3 image-augmentation matrix of the test-time resize + bottom crop."""
    resize = max(h / src_h, w / src_w)
    new_w, new_h = int(src_w * resize), int(src_h * resize)
    m = np.eye(3)
    m[0, 0] = m[1, 1] = resize
    m[0, 2] = -int(max(0, new_w - w) / 2)
    m[1, 2] = -(new_h - h)
    return m


def camera_matrices(h, w):
    """(intrinsics, extrinsics, lidar2img): three float32 arrays of shape (6, 4, 4)."""
    ida = test_ida(h, w)
    ks, es = [], []
    for c in CAMS:
        k = raw_intrinsic(c)
        k[:3, :3] = ida @ k[:3, :3]
        ks.append(k)
        es.append(lidar2cam(c))
    ks, es = np.stack(ks), np.stack(es)
    return ks.astype(np.float32), es.astype(np.float32), (ks @ es).astype(np.float32)


SCENES = {
    # name: (x0, y0, z0, yaw0, speed m/s, yaw rate rad/s, t0 seconds)
    "A": (12.0, -7.0, 0.4, 0.3, 8.0, 0.20, 1532402927.647951),
    "B": (-25.0, 31.0, -0.2, -1.9, 5.0, -0.12, 1532405927.147950),
    "C": (411.3, 1180.9, 0.0, -1.92, 9.0, 0.15, 1533151603.547590),
    "D": (600.5, 1640.2, 1.1, 2.4, 6.0, -0.25, 1537292950.151990),
}


def ego2global(scene, k):
    """Pose of the ego frame at frame index k (0.5 s spacing) on a circular arc."""
    x0, y0, z0, yaw0, v, w, _ = SCENES[scene]
    t = 0.5 * k
    yaw = yaw0 + w * t
    x = x0 + v / w * (np.sin(yaw) - np.sin(yaw0))
    y = y0 - v / w * (np.cos(yaw) - np.cos(yaw0))
    return mat(rot_zyx(yaw, 0.01 * np.sin(0.7 * k), 0.008 * np.cos(0.9 * k)), (x, y, z0 + 0.03 * np.sin(k)))


def frame_meta(scene, k):
    """ego_pose = lidar -> global (float32), its inverse, and the timestamp in seconds."""
    pose = (ego2global(scene, k) @ lidar2ego()).astype(np.float32)
    inv = np.eye(4, dtype=np.float32)
    inv[:3, :3] = pose[:3, :3].T
    inv[:3, 3] = -np.dot(pose[:3, :3].T, pose[:3, 3])
    ts = SCENES[scene][6] + 0.5 * k + 0.0013 * (k % 3)
    return pose, inv, np.float64(ts)


def image(scene, k, h, w, salt=0):
    """Normalised network input of one frame: float32 (6, 3, h, w); h, w multiples of 32.

    `salt` (stored next to every golden frame) was searched so that the scores around the
    top-k selection are well separated, i.e. the selection does not depend on rounding.
    """
    out = np.empty((6, 3, h, w), np.float32)
    for c in range(6):
        seed = zlib.crc32(f"img/{scene}/{k}/{c}/{salt}".encode())
        rng = np.random.Generator(np.random.PCG64(seed))
        coarse = rng.random((3, h // 16, w // 16)) * 3.0 - 1.5
        fine = rng.random((3, h, w)) * 1.0 - 0.5
        out[c] = np.repeat(np.repeat(coarse, 16, 1), 16, 2) + fine
    return out


def raw_image(cam, h=900, w=1600):
    """Synthetic uint8 source image (h, w, 3) for the data-pipeline goldens."""
    y, x = np.mgrid[0:h, 0:w].astype(np.int64)
    c0 = (x * 255) // (w - 1)
    c1 = (y * 255) // (h - 1)
    c2 = ((x // 16) * 37 + (y // 16) * 91 + (x * y) // 997 + cam * 41) % 256
    return np.stack([c0, c1, c2], -1).astype(np.uint8)
