"""The front door: `surgdino VERB key=value ...`. Imports nothing heavy until a verb is known."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from importlib import import_module

from surgdino import __version__
from surgdino.cli.verbs import CONFIGURED, HERE, OF_RUNS, VERBS
from surgdino.errors import SurgdinoError, from_os_error, is_out_of_memory, shown

EXAMPLES = """\
Examples
  surgdino verify dataset=cholec80 data.root=/data/cholec80
  surgdino pretrain recipe=cholec80 data.root=/data/cholec80 model.weights=/weights/vit.safetensors
  surgdino pretrain dataset=folder data.root=/data/our-videos model=vit_base_patch16 model.weights=...
  surgdino show augment data.root=/data/cholec80 dataset=cholec80

Settings are key=value words; `surgdino VERB --help` explains a verb's settings,
`surgdino VERB --cfg job ...` prints what a command would run with, and --plan
of pretrain, finetune, curate and benchmark estimates time and disk. --debug
shows tracebacks. The data folder is only read, and nothing but
`surgdino weights get` ever uses the network."""


def usage() -> str:
    """The text of `surgdino --help`."""
    width = min(max(shutil.get_terminal_size().columns, 60), 120) - 1
    rows = "\n".join(
        textwrap.fill(text, width, initial_indent=f"  {verb:<10} ", subsequent_indent=" " * 13, break_on_hyphens=False)
        for verb, text in VERBS.items()
    )
    head = f"surgdino {__version__}: adapt a vision backbone to your own surgical video"
    return f"{head}\n\nUsage: surgdino VERB [key=value ...]\n\nVerbs\n{rows}\n\n{EXAMPLES}"


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code is 0 when done, 1 where it found something wrong, 2 where the command is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [w for w in words if w != "--debug"]
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except SurgdinoError as error:
        if debug:
            raise
        print(f"surgdino: {error.line()}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `surgdino list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails once more
        return 141
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.filename:
            print(f"surgdino: {from_os_error(error, error.filename).line()}", file=sys.stderr)
            return 2
        first = shown((str(error).splitlines() or [""])[0])
        if is_out_of_memory(error):
            fix = "end other programs that hold it (nvidia-smi lists a GPU's), or use a smaller model, batch or picture"
            print(
                f"surgdino: {SurgdinoError('not enough memory', found=first or None, fix=fix).line()}", file=sys.stderr
            )
            return 2
        line = f"unexpected error: {type(error).__name__}: {first} (the same command with --debug shows where)"
        print(f"surgdino: {line}", file=sys.stderr)
        return 70
    except KeyboardInterrupt:
        print("\nsurgdino: interrupted; the same command continues from what was saved", file=sys.stderr)
        return 130


def dispatch(words: list[str]) -> int:
    """Hand the words after the verb to its module in `surgdino/verbs/`."""
    # Known to send a request when imported; must be set before any room, or an extension, imports it.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version", "version"):
        print(f"surgdino {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        from surgdino.cli.offers import instead

        raise instead(verb, rest)
    if verb in CONFIGURED:
        from surgdino.cli.configured import run_configured

        return run_configured(verb, rest, VERBS[verb])
    if verb in OF_RUNS:
        return _run_of_runs(verb, rest)
    module = import_module(f"surgdino.{'cli' if verb in HERE else 'verbs'}.{verb}")
    if "-h" in rest or "--help" in rest:
        print(module.HELP)
        return 0
    return module.main(rest)


def _run_of_runs(verb: str, words: list[str]) -> int:
    """A verb about finished runs: its words are read before its module, which imports torch."""
    from surgdino.cli import start
    from surgdino.verbs.words import RUN_VERBS

    if "-h" in words or "--help" in words:
        print(RUN_VERBS[verb].help)
        return 0
    RUN_VERBS[verb].read(words)
    return start.run(verb, words, {}, lambda: import_module(f"surgdino.verbs.{verb}").main(words))


if __name__ == "__main__":
    sys.exit(main())
