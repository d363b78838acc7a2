"""How a report is shown: HTML, Markdown, terminal, charts."""
