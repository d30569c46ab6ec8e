"""DICOM in and out: the listener, the sender, the pixel path, result objects and archive exports.

Knows neither torch, Celery nor the database (checked by import-linter), so every module here can
be used and tested with nothing but files and sockets.
"""

from pydicom import config

# Pydicom's warnings about values that break their value representation quote the value, which may
# be a patient's name. What must be valid is checked where it is used.
config.settings.reading_validation_mode = config.IGNORE
