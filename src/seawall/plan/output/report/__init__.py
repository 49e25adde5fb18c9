"""The answer as one HTML file: drawn, in tables, to be read without a network and to be printed."""

from seawall.plan.output.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
