"""The pages, one folder each; none imports another.

In each, `page.page` builds it and wires its controls; the other modules turn runs into what it shows.
"""
