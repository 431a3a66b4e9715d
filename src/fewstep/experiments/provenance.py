"""Where results come from: settings, versions, commit."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

import fewstep
from fewstep.experiments.experiment import Experiment
from fewstep.experiments.settings import settings_of
from fewstep.experiments.training import Training

_NAMES_FEWSTEP = re.compile(r'^name\s*=\s*"fewstep"\s*$', re.MULTILINE)


def provenance(experiment: Experiment, training: Training) -> dict[str, Any]:
    """Settings and versions, which every file of results contains."""
    return {
        "config": settings_of(experiment),
        "training": dataclasses.asdict(training),
        "fewstep": fewstep.__version__,
        "torch": torch.__version__,
        "commit": git_commit(),
    }


def git_commit(package: Path | None = None) -> str | None:
    """The commit of the checkout that the library runs from; it ends in ``-dirty`` if its source has been changed.

    An installed package has no commit, even if a repository surrounds it. No hook, file monitor or filter of the
    repository runs: git compares its index and objects under a configuration of its own.

    Args:
        package: the folder of the package; that of this one if not given.

    Returns:
        The commit; ``None`` for an installed package, or without git.
    """
    package = Path(fewstep.__file__).resolve().parent if package is None else package
    root = package.parent.parent
    about = root / "pyproject.toml"
    if package.parent.name != "src" or not (root / ".git").exists() or not about.is_file():
        return None
    if not _NAMES_FEWSTEP.search(about.read_text(encoding="utf-8", errors="replace")):
        return None
    git = ["git", f"--git-dir={root / '.git'}", "rev-parse", "HEAD", "--git-path", "objects"]
    found = _run([*git, "--git-path", "index"], root)
    lines = [] if found is None else found.stdout.splitlines()
    if found is None or found.returncode or len(lines) != 3:
        return None
    commit, objects, index = lines[0], root / lines[1], root / lines[2]
    changed = _is_changed(root, commit, objects, index)
    return None if changed is None else f"{commit}-dirty" if changed else commit


def _is_changed(root: Path, commit: str, objects: Path, index: Path) -> bool | None:
    """Whether the source differs from a commit; ``None`` if git cannot tell."""
    with tempfile.TemporaryDirectory(prefix="fewstep-") as name:
        scratch = Path(name)
        try:
            shutil.copy(index, scratch / "index")
        except OSError:
            return None
        (scratch / "refs").mkdir()
        (scratch / "HEAD").write_text(f"{commit}\n")
        (scratch / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
        places = {"GIT_DIR": name, "GIT_WORK_TREE": str(root), "GIT_OBJECT_DIRECTORY": str(objects)}
        refreshed = _run(["git", "update-index", "-q", "--refresh"], root, **places)
        found = _run(["git", "diff-index", "--quiet", "HEAD", "--", "src/fewstep"], root, **places)
    if refreshed is None or found is None or found.returncode not in (0, 1):
        return None
    return found.returncode == 1


def _run(command: list[str], folder: Path, **places: str) -> subprocess.CompletedProcess[str] | None:
    """Runs git without the user's and the system's configuration; ``None`` if there is no git."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0", **places}
    try:
        return subprocess.run(command, cwd=folder, env={**kept, **own}, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
