"""From glyphs on a page to text in reading order.

:mod:`segments` makes runs of words out of PDFium's glyphs, :mod:`furniture` removes running heads and
page numbers, :mod:`columns` finds the reading order, :mod:`blocks` makes paragraphs and table rows,
and :mod:`flow` joins what pages and columns cut apart.

Coordinates are points with the origin at the upper left of the upright page; ``top < bottom``. Pages
written from right to left are mirrored, so that "left" always means where a line begins.
"""
