"""Images of a MuJoCo model by Gymnasium's renderer."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from fewstep.rl.environments.physics import STATE_PARTS, Floats

_TRIAL = """
import mujoco
from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer
model = mujoco.MjModel.from_xml_string("<mujoco/>")
OffScreenViewer(model, mujoco.MjData(model), 8, 8).render("rgb_array")
"""


class Viewer:
    """A renderer with the model's first camera, or else a fixed camera.

    Args:
        model: the MuJoCo model.
        width: the width of an image in pixels.
        height: the height of an image in pixels.

    Raises:
        RuntimeError: no OpenGL renderer works. The message says what to install.
    """

    def __init__(self, model: mujoco.MjModel, width: int = 320, height: int = 180) -> None:
        backend = working_backend(os.environ.get("MUJOCO_GL"))
        if backend is None:
            raise RuntimeError(
                "No OpenGL renderer works on this machine. Without a screen or a GPU, install Mesa's software renderer "
                "(Debian: apt install libosmesa6), and unset the environment variable MUJOCO_GL or set it to osmesa."
            )
        os.environ["MUJOCO_GL"] = backend
        from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer

        self._model, self._data = model, mujoco.MjData(model)
        self._camera = 0 if model.ncam else None
        self._viewer: Any = OffScreenViewer(model, self._data, width, height)

    def picture(self, state: Floats) -> NDArray[np.uint8]:
        """Return an image of the model in a state of ``Physics``, ``[height, width, 3]``."""
        mujoco.mj_setState(self._model, self._data, state, STATE_PARTS)
        mujoco.mj_forward(self._model, self._data)
        picture: NDArray[np.uint8] = self._viewer.render("rgb_array", camera_id=self._camera)
        return picture

    def close(self) -> None:
        """Free the renderer's memory."""
        self._viewer.close()


@functools.cache
def working_backend(asked_for: str | None) -> str | None:
    """Return the first of MuJoCo's OpenGL backends that renders an image; if given, only ``asked_for`` is tried.

    Each is tried in a separate process, because a failing backend may end it.
    """
    for backend in [asked_for] if asked_for else ["egl", "osmesa", "glfw"]:
        try:
            tried = subprocess.run(
                [sys.executable, "-c", _TRIAL],
                env={**os.environ, "MUJOCO_GL": backend},
                capture_output=True,
                timeout=60,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if tried.returncode == 0:
            return backend
    return None
