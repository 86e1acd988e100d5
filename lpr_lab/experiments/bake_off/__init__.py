"""Which rule divides experts over the layers best: every allocation at equal parameters, paired over seeds.

`arms` says what is compared, `run` makes the points and goes on where it was interrupted, `table` reads them; `world`
is what all points share.
"""
