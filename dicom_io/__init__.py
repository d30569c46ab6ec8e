"""DICOM in and out: the listener, the sender, the pixel path, result objects and archive exports.

Knows neither torch, Celery nor the database (checked by import-linter), so every module here can
be used and tested with nothing but files and sockets.
"""
