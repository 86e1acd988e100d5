"""The pages, one folder each; none imports another.

Begin with `page.page`, which builds a page and connects its events. In the larger ones `compose` decides what each
component shows for an address, and `render` makes HTML of it with the templates beside it.
"""
