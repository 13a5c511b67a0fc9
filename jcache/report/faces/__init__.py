"""A report as people see it: text, HTML, drawings, tables, two runs side by side."""
