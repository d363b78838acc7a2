"""From an old TensorRT cache to a Q/DQ model, with the accuracy of both."""
