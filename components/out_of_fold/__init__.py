"""Stage `out_of_fold`: which seeds does a student get wrong that has not seen them?"""
