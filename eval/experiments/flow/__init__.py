"""Few steps for policies that are trained by flow matching: action error and success, from one step up."""
