"""From raw text to token shards: fetching, cleaning and preparing data."""
