"""Train nets of kinds that INT8 is hard on, plant loud channels, and show what each step of recovery makes of them.

    python scripts/try_recovery.py --out nets --epochs 12

Needs torch and scikit-learn. docs/recovery.md has the figures. The nets see scikit-learn's digits, shifted and with
noise; half of the digits train them, the other half judges.
"""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))


def images_as_files(folder, images, labels, most=None):
    from PIL import Image

    for i, (image, label) in enumerate(list(zip(images, labels, strict=True))[:most]):
        path = folder / str(label) / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def planted(model, factor):
    """The same function with loud channels, where there are free ones."""
    script = Path(__file__).with_name("make_loud_channels.py")
    target = model.with_suffix(".planted.onnx")
    command = [sys.executable, script, model, target, "--size", "16x16", "--factor", str(factor)]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    return target


def shown(name, document):
    """The ladder of a run, step by step."""
    recovery = document["recovery"]
    before = {row["precision"]: row for row in document["builds"]}
    print(f"{name}: FP32 top-1 {before['fp32']['top1']:.2f} %, INT8 drop {before['int8']['drop_top1']:.2f} points")
    if recovery is None:
        print("    nothing had to be recovered")
        return
    print(f"    as calibrated: {recovery['before']}")
    for step in recovery["steps"]:
        print(f"    {step['step']}: {step['before_db']} to {step['after_db']} dB, {step['outcome']} ({step['detail']})")
    print(f"    looks: {'; '.join(recovery['looks'])}")
    print(
        f"    {recovery['int8_share']:.1f} % of the multiply-accumulates in INT8, {recovery['evaluations']} "
        f"evaluations, {recovery['seconds']:.0f} s, target {'met' if recovery['met'] else 'not shown to be met'}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("recovery-nets"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--copies", type=int, default=6, help="of each of the 899 digits that judge")
    parser.add_argument("--factor", type=float, default=256.0, help="of the loud channels")
    parser.add_argument("--algo", default="entropy")
    options = parser.parse_args()

    import torch
    from recovery_nets.networks import NETWORKS, kill_channels, shrink_channels
    from recovery_nets.training import PREPROCESSING, SIDE, digits, trained

    from quant import RunSettings, run

    train, judge = digits(options.copies)
    images_as_files(options.out / "calibrate", *train, 512)
    images_as_files(options.out / "judge", *judge)
    (options.out / "preprocess.toml").write_text(PREPROCESSING)
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        network = make()
        if name.startswith("dead"):
            trained(network, *train, options.epochs, kill_channels)
            shrink_channels(network)
        else:
            trained(network, *train, options.epochs)
        model = options.out / f"{name.split()[0].lower()}.onnx"
        example = torch.zeros(1, 1, SIDE, SIDE)
        torch.onnx.export(
            network, (example,), str(model), dynamo=False, opset_version=17, input_names=["input"],
            output_names=["logits"], dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip
        for path in (model, planted(model, options.factor)):
            settings = RunSettings(
                model=path, data=options.out / "calibrate", eval=options.out / "judge", algo=options.algo,
                preprocess=str(options.out / "preprocess.toml"), max_drop=0.5, backend="onnxruntime",
                out=options.out / path.stem,
            )  # fmt: skip
            shown(path.stem, run(settings))


if __name__ == "__main__":
    main()
