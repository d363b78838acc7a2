"""Write the tables of docs/explicit-models.md: what each TensorRT accepts of explicit models.

python scripts/explicit_support.py --listings LISTINGS/ [--page docs/explicit-models.md]

TensorRT for RTX is asked, without a GPU; what its bindings and those of other releases have is looked up in listings of
their classes and members, one JSON file for each release. What 8.6.0 did was seen on an H200.
"""

import argparse
from pathlib import Path

from explicit_forms.page import table_of_api, table_of_forms, with_tables

from quant.tensorrt.bindings import load_tensorrt_for_rtx


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listings", type=Path, required=True, help="folder of 8.6.0.json, 10.16.1.11.json and so on")
    parser.add_argument("--page", type=Path, default=Path("docs/explicit-models.md"))
    options = parser.parse_args()
    rtx = load_tensorrt_for_rtx()
    tables = [table_of_forms(rtx), table_of_api(rtx, options.listings)]
    options.page.write_text(with_tables(options.page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    print(f"{options.page}: written")


if __name__ == "__main__":
    main()
