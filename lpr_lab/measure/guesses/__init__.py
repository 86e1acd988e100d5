"""What every layer would say comes next, were it the last one (logit lens); begin with `compute.logit_lens`."""
