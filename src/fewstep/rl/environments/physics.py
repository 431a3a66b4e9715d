"""Copies of one MuJoCo model, stepped by one or several threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_STATE = mujoco.mjtState
STATE_PARTS = int(_STATE.mjSTATE_FULLPHYSICS | _STATE.mjSTATE_WARMSTART | _STATE.mjSTATE_CTRL)
"""The parts of a copy's state, for ``mj_getState`` and ``mj_setState``."""


class Physics:
    """``num_copies`` states of one MuJoCo model, which share its ``mjModel`` and one ``mjData`` per thread.

    A copy is its full physics state, the solver's warm start and its controls (``mjSTATE_FULLPHYSICS``,
    ``mjSTATE_WARMSTART``, ``mjSTATE_CTRL``). To step it, the state is written to an ``mjData``, advanced and read back.
    With the warm start the results are bit-identical to those of a copy with its own ``mjData``, and therefore do not
    depend on the number of threads. MuJoCo releases Python's global lock while it steps.

    Args:
        model: the file of the model in MuJoCo's XML format.
        num_copies: the number of states.
        frame_skip: the number of simulation steps per control step.
        contacts: whether to record the torso's position and the contact forces, which are not part of the state.
        threads: the number of threads that step the copies.

    Attributes:
        states: the parts of ``STATE_PARTS``, ``[num_copies, numbers]``.
        qpos, qvel: positions ``[num_copies, nq]`` and velocities ``[num_copies, nv]`` in MuJoCo's order and SI units,
            which are views into the states.
        torso_position: the position of the first body in m at the last evaluation of the kinematics, which is before
            the last simulation step, ``[num_copies, 3]``. Only with ``contacts``.
        contact_forces: the external torque (N m) and force (N) on each body, ``cfrc_ext``, ``[num_copies, nbody, 6]``.
            Only with ``contacts``.
    """

    def __init__(
        self, model: Path, num_copies: int, *, frame_skip: int, contacts: bool = False, threads: int = 1
    ) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(model))
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET  # step reports unstable copies
        self.frame_skip = frame_skip
        self.control_interval = float(self.model.opt.timestep) * frame_skip  # seconds
        self._data = [mujoco.MjData(self.model) for _ in range(min(threads, num_copies))]
        self._pool = ThreadPoolExecutor(len(self._data) - 1) if len(self._data) > 1 else None
        self.states: Floats = np.zeros((num_copies, mujoco.mj_stateSize(self.model, STATE_PARTS)))
        self._rows = list(self.states)
        self._controls = self.states[:, self._columns(_STATE.mjSTATE_CTRL)]
        self.qpos = self.states[:, self._columns(_STATE.mjSTATE_QPOS)]
        self.qvel = self.states[:, self._columns(_STATE.mjSTATE_QVEL)]
        self._contacts = contacts
        self.torso_position: Floats = np.zeros((num_copies if contacts else 0, 3))
        self.contact_forces: Floats = np.zeros((num_copies if contacts else 0, self.model.nbody, 6))

    def reset(self, copy: int, qpos_offset: Floats, qvel_offset: Floats) -> None:
        """Reset one copy to time 0, at the model's initial positions and velocities plus offsets ``[nq]``, ``[nv]``."""
        data = self._data[0]
        mujoco.mj_resetData(self.model, data)
        data.qpos[:] += qpos_offset
        data.qvel[:] += qvel_offset
        mujoco.mj_forward(self.model, data)
        mujoco.mj_getState(self.model, data, self._rows[copy], STATE_PARTS)
        if self._contacts:
            self.torso_position[copy] = data.xpos[1]
            self.contact_forces[copy] = data.cfrc_ext

    def step(self, controls: NDArray[np.floating], chosen: Mask) -> list[int]:
        """Advance the ``chosen`` copies, ``[num_copies]``, by a control step under ``controls``, ``[num_copies, nu]``.

        Returns the copies whose simulation is unstable: a position or velocity is not finite or exceeds MuJoCo's bound,
        1e10.
        """
        self._controls[:] = controls
        copies = iter(np.flatnonzero(chosen).tolist())  # shared: each thread takes the next copy
        others = self._pool.map(self._advance, self._data[1:], repeat(copies)) if self._pool else ()
        self._advance(self._data[0], copies)
        for _ in others:  # wait for the threads and re-raise their errors
            pass
        motion = self.states[:, : self._columns(_STATE.mjSTATE_QVEL).stop]
        return np.flatnonzero(~(np.abs(motion) <= mujoco.mjMAXVAL).all(axis=1)).tolist()

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown()

    def _advance(self, data: mujoco.MjData, copies: Iterator[int]) -> None:
        model, rows, frame_skip, contacts = self.model, self._rows, self.frame_skip, self._contacts
        put, step, take = mujoco.mj_setState, mujoco.mj_step, mujoco.mj_getState
        torso, forces = data.xpos[1], data.cfrc_ext
        for copy in copies:
            row = rows[copy]
            put(model, data, row, STATE_PARTS)
            step(model, data, frame_skip)
            take(model, data, row, STATE_PARTS)
            if contacts:
                mujoco.mj_rnePostConstraint(model, data)
                self.torso_position[copy] = torso
                self.contact_forces[copy] = forces

    def _columns(self, element: mujoco.mjtState) -> slice:
        """The columns of a part of the state; MuJoCo orders the parts by their bits."""
        start = mujoco.mj_stateSize(self.model, STATE_PARTS & (int(element) - 1))
        return slice(start, start + mujoco.mj_stateSize(self.model, int(element)))
