package com.kerwin.gray.loadbalancer;

import feign.RequestInterceptor;
import java.util.Collections;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.web.servlet.HandlerInterceptor;
import org.springframework.web.servlet.config.annotation.InterceptorRegistry;
import org.springframework.web.servlet.config.annotation.WebMvcConfigurer;

/** Takes the header from each request, and writes it onto each call. */
@Configuration
public class GrayWebConfiguration implements WebMvcConfigurer {
    @Override
    public void addInterceptors(InterceptorRegistry registry) {
        registry.addInterceptor(new GrayMvcHandlerInterceptor());
    }

    @Bean
    public RequestInterceptor grayFeignRequestInterceptor() {
        return template -> {
            GrayStatusEnum tag = GrayFlagRequestHolder.getGrayTag();
            if (tag != null) {
                template.header("gray", Collections.singleton(tag.name()));
            }
        };
    }

    static final class GrayMvcHandlerInterceptor implements HandlerInterceptor {
        @Override
        public boolean preHandle(HttpServletRequest request, HttpServletResponse response, Object handler) {
            String tag = request.getHeader("gray");
            if (tag != null) {
                GrayFlagRequestHolder.setGrayTag(GrayStatusEnum.getByVal(tag));
            }
            return true;
        }

        @Override
        public void afterCompletion(
                HttpServletRequest request, HttpServletResponse response, Object handler, Exception error) {
            GrayFlagRequestHolder.remove();
        }
    }
}
