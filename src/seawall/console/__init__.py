"""The console: what the page for people who run the server shows, and who may see it.

Nothing of it is imported where the console is off. Its routes are in `hosts/http/console.py`, the
page's files in `assets/`.
"""
