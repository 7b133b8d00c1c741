"""The transformer: its mathematics, its cache for decoding, its first weights and the names they are stored under."""
