"""A chat service under 50 users, as k6 scripts: all repeats, other words, 30 % repeats, no repeats."""
