"""Reports: what a plan will move, and what a recorded run did, for people, pages and other programs."""
