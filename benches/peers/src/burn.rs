//! burn's side of `compare.py`: convolutions of kernel 3 on its wgpu backend.

use std::path::Path;
use std::time::Instant;

use burn_backend::ops::{ConvOptions, FloatTensorOps, ModuleOps};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, TensorData};
use burn_wgpu::{Wgpu, WgpuDevice};
use sep4d_peers::{Request, Result, read, relative, serve};
use serde_json::{Value, json};

type Tensor = FloatTensor<Wgpu>;
type Device = <Wgpu as burn_backend::BackendTypes>::Device;

struct Convolution {
    device: Device,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    d_y: Tensor,
}

impl Convolution {
    fn options() -> ConvOptions<3> {
        ConvOptions::new([1; 3], [1; 3], [1; 3], 1)
    }

    fn forward(&self) -> Tensor {
        Wgpu::conv3d(self.x.clone(), self.weight.clone(), Some(self.bias.clone()), Self::options())
    }

    fn data(&self) -> Tensor {
        Wgpu::conv3d_x_backward(self.x.clone(), self.weight.clone(), self.d_y.clone(), Self::options())
    }

    fn weight(&self) -> [Tensor; 2] {
        [
            Wgpu::conv3d_weight_backward(self.x.clone(), self.weight.clone(), self.d_y.clone(), Self::options()),
            Wgpu::conv3d_bias_backward(self.x.clone(), self.bias.clone(), self.d_y.clone()),
        ]
    }

    fn wait(&self) -> Result<()> {
        Ok(Wgpu::sync(&self.device).map_err(|why| format!("{why:?}"))?)
    }
}

fn main() -> Result<()> {
    let device: Device = burn_cubecl::CubeDevice::Wgpu(WgpuDevice::default());
    let mut convolution = None;
    serve(|request| match request {
        Request::Conv3d { folder, inputs, outputs, size } => {
            let (made, answer) = prepare(&device, &folder, inputs, outputs, size)?;
            convolution = Some(made);
            Ok(answer)
        }
        Request::Step { .. } => Err("the model is not built in burn".into()),
        Request::Time { part, repeat } => {
            let convolution = convolution.as_ref().ok_or("nothing was prepared")?;
            convolution.wait()?;
            let start = Instant::now();
            for _ in 0..repeat {
                match part.as_str() {
                    "forward" => drop(convolution.forward()),
                    "data" => drop(convolution.data()),
                    "weight" => drop(convolution.weight()),
                    _ => return Err(format!("a convolution has no part {part}").into()),
                }
            }
            convolution.wait()?;
            Ok(json!({ "seconds": start.elapsed().as_secs_f64() / repeat as f64 }))
        }
    })
}

fn prepare(
    device: &Device,
    folder: &Path,
    inputs: usize,
    outputs: usize,
    [x, y, z]: [usize; 3],
) -> Result<(Convolution, Value)> {
    let tensor = |name: &str, shape: &[usize]| -> Result<Tensor> {
        Ok(Wgpu::float_from_data(TensorData::new(read(folder, name)?, shape.to_vec()), device))
    };
    let convolution = Convolution {
        device: device.clone(),
        x: tensor("x", &[1, inputs, x, y, z])?,
        weight: tensor("weight", &[outputs, inputs, 3, 3, 3])?,
        bias: tensor("bias", &[outputs])?,
        d_y: tensor("d_y", &[1, outputs, x, y, z])?,
    };
    let error = |name: &str, tensor: Tensor| -> Result<f64> {
        let data = pollster::block_on(Wgpu::float_into_data(tensor)).map_err(|why| format!("{why:?}"))?;
        let values: Vec<f32> = data.try_to_vec().map_err(|why| format!("{why:?}"))?;
        Ok(relative(&values, &read(folder, name)?))
    };
    let [d_weight, d_bias] = convolution.weight();
    let errors = json!({
        "y": error("y", convolution.forward())?,
        "d_x": error("d_x", convolution.data())?,
        "d_weight": error("d_weight", d_weight)?,
        "d_bias": error("d_bias", d_bias)?,
    });
    Ok((convolution, json!({ "errors": errors, "adapter": Wgpu::name(device) })))
}
