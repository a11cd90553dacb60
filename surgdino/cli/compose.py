"""A verb's configuration from configs/, the cards, the recipes and the user's words, composed by Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from surgdino.config import flat_keys, read_yaml
from surgdino.discovery import files
from surgdino.errors import SurgdinoError, nearest, shown
from surgdino.paths import share
from surgdino.yaml_files import yaml_text

GROUPS = ("recipe", "dataset", "model", "method", "guide", "task", "augment", "hardware")
_FOLDERS = {"dataset": "datasets", "recipe": "recipes"}  # their files lie beside configs/, not in it
_PACKAGES = {"recipe": "_global_"}  # a recipe sets keys of every section
_OF_COLUMN = "guide/column"  # the choice that takes a column's name: guide=column:hospital
FAULTS = (HydraException, OmegaConfBaseException)


class ChoiceSource(ConfigSource):
    """Hydra's view of the groups: cards, recipes, and the YAML files in the user's own folders."""

    @staticmethod
    def scheme() -> str:
        return "surgdino"

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.rpartition("/")
        choice, _, column = name.removesuffix(".yaml").partition(":")
        path = choices(group)[choice]
        header, values = self._get_header_dict(yaml_text(path)), read_yaml(path)
        header["package"] = header.get("package") or _PACKAGES.get(group)
        if column:  # guide=column:hospital
            header["package"], values["column"] = f"guide.column_{column}", column
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(values), header)

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", *GROUPS)

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.rpartition("/")
        choice, colon, column = name.removesuffix(".yaml").partition(":")
        if colon and not (f"{group}/{choice}" == _OF_COLUMN and column.isidentifier()):
            return False
        return group in GROUPS and choice in choices(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if results_filter is ObjectType.GROUP or config_path not in GROUPS:
            return [] if results_filter is ObjectType.CONFIG or config_path else list(GROUPS)
        return list(choices(config_path))


def choices(group: str) -> dict[str, Path]:
    """Name -> YAML file of a group's choices."""
    return files(_FOLDERS.get(group, f"configs/{group}"))


class ChoiceSearchPath(SearchPathPlugin):
    """Puts `ChoiceSource` behind configs/ on Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="surgdino", path="surgdino://choices")


for _plugin in (ChoiceSource, ChoiceSearchPath):
    Plugins.instance().register(_plugin)


def compose(verb: str, words: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """The configuration of `surgdino VERB WORDS`, before its interpolations are resolved.

    Args:
        with_hydra: with the section `hydra`, which has the choices of the groups.
    """
    try:
        return _compose(verb, words, with_hydra)
    except (*FAULTS, ValueError, OSError, RecursionError) as error:  # as Hydra raises them for odd words
        raise in_words(verb, words, error) from error


def _compose(verb: str, words: Sequence[str], with_hydra: bool = False) -> DictConfig:
    instance = GlobalHydra.instance()
    before, instance.hydra = instance.hydra, None  # of a program of the user's that Hydra runs
    try:
        with initialize_config_dir(config_dir=str(share("configs")), version_base="1.3"):
            return hydra.compose(config_name=verb, overrides=list(words), return_hydra_config=with_hydra)
    finally:
        GlobalHydra.instance().hydra = before


def in_words(verb: str, words: Sequence[str], error: Exception) -> SurgdinoError:
    """Hydra's error as one line with the nearest valid key or choice."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        word = getattr(error, "override", text)
        return SurgdinoError(f"{word!r} is not a setting of the form key=value", fix="write section.key=value")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).partition("/")
        known = error.options or (choices(group) if group in GROUPS else ())
        return SurgdinoError(f"there is no {group}={choice}", fix=nearest(choice, known))
    for group, _, choice in (word.partition("=") for word in words):
        if group in GROUPS and choice not in choices(group):
            return SurgdinoError(f"there is no {group}={choice}", fix=nearest(choice, choices(group)))
    place = str(getattr(error.__cause__, "full_key", None))
    if "Cannot merge" in str(error.__cause__):
        expected = "a list" if getattr(error.__cause__, "object_type", None) is list else "settings, {key: value}"
        found = next(
            (value for key, _, value in (word.partition("=") for word in words) if key == place), "another kind"
        )
        return SurgdinoError(f"{place} cannot be used", expected=expected, found=found)
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if unknown:
        key = (unknown.group(1) or unknown.group(2)).lstrip("+~")
        if key in GROUPS:  # of the command, or of its recipe
            return SurgdinoError(f"surgdino {verb} takes no {key}=", fix="leave it out")
        # With the choices made: each task and method has settings of its own.
        chosen = _compose(verb, [word for word in words if word.partition("=")[0] in GROUPS])
        valid = [*flat_keys(OmegaConf.to_container(chosen)), *GROUPS]  # type: ignore[arg-type]
        if place.startswith(f"{key}."):  # in a mapping: augment.transforms={bloood: null}
            section, _, last = place.rpartition(".")
            inside = [word.removeprefix(f"{section}.") for word in valid if word.rpartition(".")[0] == section]
            return SurgdinoError(f"unknown setting {place!r}", fix=nearest(last, inside))
        return SurgdinoError(f"unknown setting {key!r}", fix=nearest(key, valid))
    return SurgdinoError("the settings do not fit together", found=shown(text.partition("\n")[0], 200))


def of_recipe(verb: str, words: Sequence[str], fault: SurgdinoError) -> SurgdinoError:
    """The fault; where it is a setting that none but the recipe brings, that the recipe is for another verb."""
    recipe = next((word for word in words if word.startswith("recipe=")), None)
    told = re.match(r"(?:unknown setting '?|surgdino \w+ takes no )([\w.]+)", fault.what)
    if recipe is None or told is None or fault.place:  # an entry of a list is not a key of the recipe
        return fault
    key, own = told.group(1), [word.partition("=")[0].lstrip("+~") for word in words]
    if any(f"{key}.".startswith(f"{word}.") or word.startswith(f"{key}.") for word in own):
        return fault
    alone = _compose(verb, [word for word in words if word.partition("=")[0] in GROUPS and word != recipe])
    if key in flat_keys(OmegaConf.to_container(alone)):  # type: ignore[arg-type]
        return fault
    fix = "leave the recipe out: it is for another verb; of your own recipe, correct the file"
    return SurgdinoError(f"{recipe} sets {key}, which surgdino {verb} does not have", fix=fix)
