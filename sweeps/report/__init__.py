"""From numbers to a page: tables, figures and files of the report."""
