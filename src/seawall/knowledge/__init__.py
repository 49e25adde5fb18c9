"""Folders of documents as tools of agents: an index is built ahead, and searched in turns."""
