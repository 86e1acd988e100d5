"""Views: theme, token strip, plots. Shared by dashboard, notebooks and reports."""
