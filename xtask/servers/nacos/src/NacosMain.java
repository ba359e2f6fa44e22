import com.alibaba.nacos.NacosServerBasicApplication;
import com.alibaba.nacos.NacosServerWebApplication;
import com.alibaba.nacos.core.listener.startup.NacosStartUp;
import com.alibaba.nacos.core.listener.startup.NacosStartUpManager;
import com.alibaba.nacos.sys.env.DeploymentType;
import com.alibaba.nacos.sys.env.EnvUtil;
import com.alipay.sofa.jraft.storage.impl.RocksDBLogStorage;
import com.alipay.sofa.jraft.util.StorageOptionsFactory;
import org.springframework.boot.Banner;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.context.ConfigurableApplicationContext;

/** Starts the core and the HTTP API of a Nacos server, without its console. */
public final class NacosMain {
    public static void main(String[] args) {
        try {
            start(args);
            System.out.println("nacos-main: up");
        } catch (Throwable e) {
            e.printStackTrace();
            Runtime.getRuntime().halt(1); // threads that are up already would keep the process
        }
    }

    private static void start(String[] args) {
        // Each of four raft groups preallocates a log of twice the write buffer: 145 MB with jraft's defaults.
        StorageOptionsFactory.registerRocksDBColumnFamilyOptions(RocksDBLogStorage.class,
                StorageOptionsFactory.getDefaultRocksDBColumnFamilyOptions().setWriteBufferSize(1 << 20));
        StorageOptionsFactory.registerRocksDBOptions(RocksDBLogStorage.class,
                StorageOptionsFactory.getDefaultRocksDBOptions().setManifestPreallocationSize(64 << 10));
        EnvUtil.setDeploymentType(DeploymentType.SERVER);
        NacosStartUpManager.start(NacosStartUp.CORE_START_UP_PHASE);
        ConfigurableApplicationContext core = new SpringApplicationBuilder(NacosServerBasicApplication.class)
                .web(WebApplicationType.NONE).bannerMode(Banner.Mode.OFF).run(args);
        NacosStartUpManager.start(NacosStartUp.WEB_START_UP_PHASE);
        new SpringApplicationBuilder(NacosServerWebApplication.class)
                .parent(core).bannerMode(Banner.Mode.OFF).run(args);
    }
}
