"""The outside: HTTP, the live feed and the pages. Nothing below knows that it is there."""
