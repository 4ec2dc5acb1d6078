"""What people see: the console table, the figures and the HTML report, all from stored results alone."""
