"""Is a way to be fast still the same policy? Distances to the policy's own actions, and success in closed loop."""
