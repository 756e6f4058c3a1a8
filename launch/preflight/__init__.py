"""Is every host of a plan ready?"""
