"""Published recipes as files: `baselines.find("text/rules")`, `baselines.names("text")`."""

from __future__ import annotations

from pathlib import Path

from curation.errors import PlanError, suggest
from curation.plan_file import Recipe, load_plan

FOLDER = Path(__file__).parent


def names(track: str | None = None) -> list[str]:
    """All recipes, as `track/name`, in the order their files ask for."""
    files = sorted(FOLDER.glob(f"{track or '*'}/*.yaml"))
    return [f"{f.parent.name}/{f.stem}" for f in sorted(files, key=lambda f: (load_plan(f).order, f.stem))]


def find(name: str | Path) -> Recipe:
    """A recipe by path (a file of ours or one of DCLM's), or by the name of one of ours. PlanError names the
    nearest one."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise PlanError(f"there is no recipe file {path}")
        from baselines import dclm_yaml

        return dclm_yaml.load(path) if dclm_yaml.is_dclm(path) else load_plan(path)
    ours = FOLDER / f"{name}.yaml"
    if not ours.is_file():
        raise PlanError(f"there is no recipe {name!r}; {suggest(str(name), names())}")
    return load_plan(ours)
