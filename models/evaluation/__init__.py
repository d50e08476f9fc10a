"""From predictions to scores, intervals and reports."""
