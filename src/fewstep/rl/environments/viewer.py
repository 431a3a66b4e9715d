"""Pictures of a MuJoCo model, by Gymnasium's renderer."""

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
    """The model's first camera, or else one of its own that stands still.

    Args:
        model: the MuJoCo model.
        width, height: of a picture, in pixels.

    Raises:
        RuntimeError: there is no OpenGL renderer.
    """

    def __init__(self, model: mujoco.MjModel, width: int = 320, height: int = 180) -> None:
        backend = working_backend(os.environ.get("MUJOCO_GL"))
        if backend is None:
            raise RuntimeError(
                "no OpenGL renderer works here. Without a screen or a GPU install Mesa's software renderer (Debian: "
                "apt install libosmesa6), and leave the environment variable MUJOCO_GL empty or set it to osmesa."
            )
        os.environ["MUJOCO_GL"] = backend
        from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer

        self._model, self._data = model, mujoco.MjData(model)
        self._camera = 0 if model.ncam else None
        self._viewer: Any = OffScreenViewer(model, self._data, width, height)

    def picture(self, state: Floats) -> NDArray[np.uint8]:
        """An image ``[height, width, 3]`` of the model in a state of ``Physics``."""
        mujoco.mj_setState(self._model, self._data, state, STATE_PARTS)
        mujoco.mj_forward(self._model, self._data)
        picture: NDArray[np.uint8] = self._viewer.render("rgb_array", camera_id=self._camera)
        return picture

    def close(self) -> None:
        """Frees the renderer's memory."""
        self._viewer.close()


@functools.cache
def working_backend(asked_for: str | None) -> str | None:
    """The first of MuJoCo's ways to OpenGL that draws a picture; only ``asked_for`` is tried if given.

    Each is tried in a process of its own: one that does not work may take its process with it.
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
