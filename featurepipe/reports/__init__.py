"""From predictions to numbers, tables and pages."""
