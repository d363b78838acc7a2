"""The report of a run: `report.json` (schema in the README), `report.md` for a pull request, `report.html`."""
