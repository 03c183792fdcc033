"""One self-contained HTML file of a bench run, for people: tables, charts, conditions. Needs the extra ``report``."""
