"""`python -m training BUNDLE --out DIR`: learn a policy from a bundle and write it as DIR/policy.onnx."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rl_hooks.action_space import ActionSpace
from rl_hooks.export.errors import ExportError
from training.errors import TrainingError
from training.settings import ALGORITHMS, Settings, read_settings

EXIT_OK, EXIT_REFUSED = 0, 2
NEEDED = ("torch", "d3rlpy", "onnx", "onnxruntime")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: trained; 2: refused, with one message."""
    options = _parser().parse_args(arguments)
    try:
        lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if lacking:
            raise TrainingError(f"{', '.join(lacking)} not installed; `make training` installs the extra `train`")
        settings = Settings() if options.config is None else read_settings(options.config)
        if options.seed is not None:
            settings = replace(settings, seed=options.seed)
        _train(options.bundle, options.algorithm, settings, options.out)
    except (TrainingError, ExportError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{options.out}: cannot be written ({error.strerror or error}); choose another place with --out")
    return EXIT_OK


def _train(path: Path, algorithm: str, settings: Settings, out: Path) -> None:
    from training import train  # these load torch, which takes seconds and may not be there
    from training.transitions import read_material

    material = read_material(path)
    print(f"train {len(material.train)}, validation {len(material.validation)} transitions", flush=True)
    trained = train.train(material, algorithm, settings, lambda text: print(text, flush=True))
    policy = train.write(trained, material, out)
    scores = ", ".join(f"{one['steps']}: {one['score']:.5f}" for one in trained.metrics["checkpoints"])
    print(f"checkpoints  {scores}; chosen {trained.metrics['chosen_steps']} ({trained.metrics['score']})")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in trained.metrics["action_shares"].items())
    print(f"on validation it chooses {shares}")
    print(f"policy       {policy.describe()} in {policy.path}")
    if ActionSpace.of(material.bundle.facts).one_for_all:
        print(
            "note         recorded with one switch for all services, and this policy decides for each service on its "
            "own: it can neither be judged on this data nor decide there, only where an actuator reaches each service"
        )


def _refuse(message: str) -> int:
    print(f"training: {message}", file=sys.stderr)
    return EXIT_REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Learn a policy from a bundle.")
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="the folder of a bundle")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="where the policy is written")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default=ALGORITHMS[0], help="(default: %(default)s)")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="YAML that replaces numbers of training/settings.py"
    )
    parser.add_argument("--seed", type=int, help="of the networks and batches (default: the settings' own)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
