"""From frames with truth to named losses with gradients."""
