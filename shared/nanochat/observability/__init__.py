"""Logs, request ids and metric buckets, the same in every service."""
