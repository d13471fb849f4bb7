"""Kodiak block storage: the Cinder v3 API."""
