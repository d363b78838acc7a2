"""Small nets of kinds that INT8 is hard on, trained on scikit-learn's digits."""
