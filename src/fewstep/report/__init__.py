"""Reports: one self-contained HTML file about one or several runs."""

from fewstep.report.contents import RunContents, read_run, read_table
from fewstep.report.write import write_report, write_table_report

__all__ = ["RunContents", "read_run", "read_table", "write_report", "write_table_report"]
