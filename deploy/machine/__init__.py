"""The machine on which releases run: its engine, its images and services, its processes."""
