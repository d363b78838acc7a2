"""What folders hold that transactions write into."""

from calib.files import Transaction


def contents(folder):
    """Texts of the files in a folder, by name."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != ".lock"}


def write_one(folder):
    """Write a file called b."""
    with Transaction(folder) as files:
        files.stage("b").write_text("2")
