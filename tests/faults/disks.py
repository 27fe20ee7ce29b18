"""File systems that a test may fill, cut off and copy: tmpfs of a size, and images on loop devices. All need root."""

import os
import shutil
import subprocess

from harness.scene import Skip

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}


def command(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Skip(f"{' '.join(str(word) for word in words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def need_root():
    if os.geteuid() != 0:
        raise Skip("mounting needs root")


def tmpfs(scene, name, megabytes):
    """Mounts a tmpfs of this size; returns its directory."""
    need_root()
    where = scene.folder(name)
    command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "millrace-test", where)
    scene.closing.append(lambda: unmount(where))
    return where


def image(path, kind, megabytes):
    """Makes a sparse image with a file system on it."""
    if not shutil.which(MAKE[kind][0]):
        raise Skip(f"{MAKE[kind][0]} is not installed")
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    command(*MAKE[kind], path)
    return path


def mount(scene, path, name, options="loop"):
    """Mounts an image by a loop device; returns its directory."""
    need_root()
    where = scene.folder(name)
    command("mount", "-o", options, path, where)
    scene.closing.append(lambda: unmount(where))
    return where


def unmount(where):
    for _ in range(3):
        if subprocess.run(["umount", str(where)], capture_output=True).returncode == 0:
            return
    subprocess.run(["umount", "-l", str(where)], capture_output=True)


def fill(where, leave=0):
    """Takes all room of a file system but `leave` bytes; returns the file that has it."""
    path = where / "filler"
    with open(path, "ab") as file:
        for step in (1 << 24, 1 << 20, 1 << 16, 1 << 12):
            while room(where) - leave >= step:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
                except OSError:
                    break
    return path


def room(where):
    found = os.statvfs(where)
    return found.f_bavail * found.f_frsize
