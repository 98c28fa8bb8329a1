"""Forward passes: the seams (`decoder.py`, `encoder.py`), sampling, and one package per kind of device."""
